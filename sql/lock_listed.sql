-- Locks 3 of a step, see `admit`: of the accounts of its order those after one position, up to another.
create function msal_logout.lock_listed(o msal_logout.signal_order, after bigint, up_to bigint) returns void
language plpgsql as $$
begin
  perform msal_logout.lock_accounts(array(
    select (o.id, a.is_whole, a.account_issuer, a.home_account_id, o.revoke_before, o.remember_seconds,
      false)::msal_logout.matched_account
    from msal_logout.accounts_in_steps a
    where a.id = o.id and a.position > lock_listed.after and a.position <= lock_listed.up_to)); -- keeps accounts_in_steps_order
end
$$;
