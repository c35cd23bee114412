-- Remembers findings: an array of {object_id, event, revoke_before, detail, status, seen_at}. Of one that is known it keeps when
-- it was first seen. What an operator has decided meanwhile stands.
create function msal_logout.keep_findings(tenant_id text, round uuid, findings jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  insert into msal_logout.directory_findings as k (
    tenant_id, object_id, event, revoke_before, detail, status, round, seen_at)
  select keep_findings.tenant_id, f.object_id, f.event, f.revoke_before, f.detail, f.status, keep_findings.round, f.seen_at
  from jsonb_to_recordset(keep_findings.findings)
    as f (object_id text, event text, revoke_before bigint, detail text, status text, seen_at timestamptz)
  order by f.object_id collate "C"
  on conflict (tenant_id, object_id) do update set
    event = excluded.event, revoke_before = excluded.revoke_before, detail = excluded.detail, round = excluded.round,
    status = case
      when excluded.status = 'held' and (k.status = 'released'
        or k.status = 'dropped' and (k.event, k.revoke_before) = (excluded.event, excluded.revoke_before)) then k.status
      else excluded.status end,
    seen_at = case when (k.event, k.revoke_before, k.status) = (excluded.event, excluded.revoke_before, excluded.status)
      then k.seen_at else excluded.seen_at end;
end
$$;
