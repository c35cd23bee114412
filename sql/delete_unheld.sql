-- As `delete_range`, but passes over the rows that somebody holds.
create function msal_logout.delete_unheld(p msal_logout.records, up_to bigint) returns msal_logout.deletion[]
language plpgsql as $$
declare
  deletions msal_logout.deletion[];
begin
  with due as materialized (
    select t.partition_key, t.client_id from msal_logout.token_cache t
    where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to) and (t.tenant_id, t.generation) <= (p.tenant_id, up_to)
    union all
    select t.partition_key, t.client_id from msal_logout.token_cache t
    where (t.client_id, t.generation) > (p.client_id, p.swept_to) and (t.client_id, t.generation) <= (p.client_id, up_to)
  ), locked as materialized (
    select t.partition_key, t.client_id from due d
    join msal_logout.token_cache t
      on t.partition_key = any (array[d.partition_key]) and t.client_id is not distinct from d.client_id
    where t.generation - p.last_generation <= 0 -- not one that came meanwhile under the same key
    for update of t skip locked
  ), gone as (
    delete from msal_logout.token_cache t using locked l
    where t.partition_key = any (array[l.partition_key]) and t.client_id is not distinct from l.client_id
    returning t.client_id, t.partition_key, t.account_issuer, t.home_account_id
  ), gone_sessions as (
    delete from msal_logout.sessions s using gone g
    where s.partition_key = any (array[g.partition_key]) and s.client_id is not distinct from g.client_id -- keeps sessions_row
    returning (p.id, s.client_id, s.account_issuer, s.home_account_id, false,
      (s.issuer, s.sid, s.subject, s.home_account_id)::msal_logout.revoked_session)::msal_logout.deletion as d
  )
  select array_agg(g.d) into deletions
  from (
    select (p.id, g.client_id, g.account_issuer, g.home_account_id, true, null)::msal_logout.deletion as d from gone g
    union all
    select * from gone_sessions
  ) g;
  return deletions;
end
$$;
