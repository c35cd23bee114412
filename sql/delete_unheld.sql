-- As `delete_range`, but passes over the rows that somebody holds.
create function msal_logout.delete_unheld(p msal_logout.records, up_to bigint) returns msal_logout.match[]
language plpgsql as $$
declare
  all_gone msal_logout.match[];
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
    returning t.account_issuer, t.home_account_id, t.client_id, t.partition_key
  )
  select array_agg(
    (p.id, true, g.account_issuer, g.home_account_id, g.client_id, g.partition_key, null, null)::msal_logout.match)
  into all_gone
  from gone g;
  return all_gone;
end
$$;
