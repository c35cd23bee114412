-- The accounts that orders matched, each once for each order.
create function msal_logout.accounts_of(orders msal_logout.signal_order[], matches msal_logout.match[])
returns msal_logout.matched_account[]
language plpgsql stable as $$
begin
  return array(
    select distinct (m.id, m.is_whole, m.account_issuer, m.home_account_id, o.revoke_before, o.remember_seconds,
      false)::msal_logout.matched_account
    from unnest(matches) m join unnest(orders) o on o.id = m.id);
end
$$;
