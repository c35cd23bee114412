-- Deletes the rows of a sweep from where it is to a generation, and returns them; waits for rows that somebody holds.
-- A generation that came meanwhile under the same key is a later one.
create function msal_logout.delete_range(p msal_logout.records, up_to bigint) returns msal_logout.match[]
language plpgsql as $$
declare
  gone msal_logout.match[];
begin
  with of_tenant as (
    delete from msal_logout.token_cache t
    where (t.tenant_id, t.generation) > (p.tenant_id, p.swept_to) and (t.tenant_id, t.generation) <= (p.tenant_id, up_to)
    returning t.account_issuer, t.home_account_id, t.client_id, t.partition_key
  ), of_app as (
    delete from msal_logout.token_cache t
    where (t.client_id, t.generation) > (p.client_id, p.swept_to) and (t.client_id, t.generation) <= (p.client_id, up_to)
    returning t.account_issuer, t.home_account_id, t.client_id, t.partition_key
  )
  select array_agg(
    (p.id, true, g.account_issuer, g.home_account_id, g.client_id, g.partition_key, null, null)::msal_logout.match)
  into gone
  from (select * from of_tenant union all select * from of_app) g;
  return gone;
end
$$;
