-- Ends a row that a running sweep has yet to reach, or a sign-out in steps that takes all of its account, with its sessions, and returns
-- what is to be published. A login that came after these began would otherwise go into the row, and be swept away with it, or be rejected
-- as another user's. The caller has asked `admit`: none of them begins meanwhile.
create function msal_logout.end_due_row(client_id text, partition_key text) returns msal_logout.deletion[]
language plpgsql as $$
#variable_conflict use_column
declare
  deletions msal_logout.deletion[];
begin
  delete from msal_logout.token_cache t
  where t.partition_key = end_due_row.partition_key and t.client_id is not distinct from end_due_row.client_id
    and t.kind <> 'app'
    and (msal_logout.is_due(t.client_id, t.tenant_id, t.generation)
      or msal_logout.is_in_steps(t.account_issuer, t.home_account_id, t.generation, true));
  if not found then
    return null;
  end if;
  with gone as (
    delete from msal_logout.sessions s
    where s.partition_key = end_due_row.partition_key and s.client_id is not distinct from end_due_row.client_id -- keeps sessions_row
    returning (null, s.client_id, s.account_issuer, s.home_account_id, false,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
  )
  select array_agg(g.d) into deletions from gone g;
  return deletions;
end
$$;
