-- How many accounts of an issuer no watcher of this tenant can find: their ID tokens named no object of it, and their ids have
-- another home, or none.
create function msal_logout.count_unwatched(tenant_id text, issuer text) returns bigint
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  guid constant text := '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
  accounts bigint;
begin
  select count(*) into accounts
  from (
    select distinct s.account_issuer, s.home_account_id from msal_logout.sessions s
    where s.issuer = count_unwatched.issuer and s.expires_at > now()
      and (s.tid = count_unwatched.tenant_id and s.oid ~ guid) is not true
      and (s.account_issuer like '%/*' and left(s.home_account_id, 36) ~ guid
        and substr(s.home_account_id, 37) = '.' || count_unwatched.tenant_id) is not true
  ) a;
  return accounts;
end
$$;
