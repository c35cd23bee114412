-- Writes down all accounts that an order of steps matches, and returns how many. The keys of the order are locked, so that no login makes it
-- another one; their own locks come when they are noted.
create function msal_logout.list_accounts(o msal_logout.signal_order) returns bigint
language plpgsql as $$
declare
  found_accounts bigint;
begin
  insert into msal_logout.accounts_in_steps (id, position, account_issuer, home_account_id, is_whole)
  select o.id, row_number() over (order by a.home_account_id, a.account_issuer), a.account_issuer, a.home_account_id,
    o.purge_scope = 'account'
  from (
    select m.account_issuer, m.home_account_id from msal_logout.match_sessions(array[o]) m
    union
    select m.account_issuer, m.home_account_id from msal_logout.match_accounts(array[o]) m
  ) a;
  get diagnostics found_accounts = row_count;
  return found_accounts;
end
$$;
