-- Locks 3 of a sign-out, see `admit`: the accounts. All their logins are rejected by an order that names them, else those without a sid.
create function msal_logout.lock_accounts(matched msal_logout.matched_account[]) returns void
language plpgsql as $$
begin
  perform msal_logout.lock_keys(
    array_agg(m.account_issuer), array_agg('account=' || m.home_account_id),
    array_agg(case when m.is_named then m.revoke_before end), array_agg(m.revoke_before), array_agg(m.remember_seconds))
  from unnest(matched) m;
end
$$;
