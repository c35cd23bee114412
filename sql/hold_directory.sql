-- Opens the breaker, and remembers what it holds; an open one keeps since when. False, and nothing is done, if an operator has
-- decided since the round began: what was released or dropped then is no longer to be held. Nor if another instance holds the
-- lease by now: what this one saw may be old.
create function msal_logout.hold_directory(tenant_id text, holder uuid, round uuid, breaker jsonb, findings jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  update msal_logout.directories d set breaker = hold_directory.breaker
    || jsonb_build_object('openedAt', coalesce(d.breaker -> 'openedAt', to_jsonb(now())))
  where d.tenant_id = hold_directory.tenant_id and d.holder = hold_directory.holder and d.held_until > now()
    and (d.decision is null or (d.decision ->> 'at')::timestamptz < d.begun_at);
  if not found then
    return false;
  end if;
  perform msal_logout.keep_findings(hold_directory.tenant_id, hold_directory.round, hold_directory.findings);
  return true;
end
$$;
