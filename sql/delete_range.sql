-- Deletes the rows of a sweep from where it is to a generation, and their sessions; waits for rows that somebody holds.
-- A generation that came meanwhile under the same key is a later one.
create function msal_logout.delete_range(p msal_logout.records, up_to bigint) returns msal_logout.deletion[]
language plpgsql as $$
declare
  deletions msal_logout.deletion[];
begin
  with gone as (
    delete from msal_logout.token_cache t
    where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to) and (t.tenant_id, t.generation) <= (p.tenant_id, up_to)
    returning t.client_id, t.partition_key, t.account_issuer, t.home_account_id
  ), gone_of_app as (
    delete from msal_logout.token_cache t
    where (t.client_id, t.generation) > (p.client_id, p.swept_to) and (t.client_id, t.generation) <= (p.client_id, up_to)
    returning t.client_id, t.partition_key, t.account_issuer, t.home_account_id
  ), all_gone as materialized (
    select * from gone union all select * from gone_of_app
  ), gone_sessions as (
    delete from msal_logout.sessions s using all_gone g
    where s.partition_key = any (array[g.partition_key]) and s.client_id is not distinct from g.client_id -- keeps sessions_row
    returning (p.id, s.client_id, s.account_issuer, s.home_account_id, false,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
  )
  select array_agg(g.d) into deletions
  from (
    select (p.id, g.client_id, g.account_issuer, g.home_account_id, true, null)::msal_logout.deletion as d from all_gone g
    union all
    select * from gone_sessions
  ) g;
  return deletions;
end
$$;
