-- The accounts that orders name, as keys to lock. By an issuer: its bare subject, and the id from client info of its group. Every login of
-- the id has the lock of ''.
create function msal_logout.named_accounts(orders msal_logout.signal_order[]) returns msal_logout.matched_account[]
language plpgsql stable as $$
begin
  return array(
    select (o.id, o.purge_scope = 'account', k.account_issuer, o.home_account_id, k.revoke_before, o.remember_seconds,
      true)::msal_logout.matched_account
    from unnest(orders) o
    cross join lateral (values
      ('', case when coalesce(o.issuer, '') = '' then o.revoke_before end),
      (nullif(o.issuer, ''), o.revoke_before),
      (msal_logout.issuer_group(nullif(o.issuer, '')), o.revoke_before)
    ) k (account_issuer, revoke_before)
    where o.selector = 'account' and k.account_issuer is not null);
end
$$;
