-- Whether an order by account means this one: see `signal_order.issuer`.
create function msal_logout.is_account_of(account_issuer text, issuer text) returns boolean
language sql stable as $$
  select issuer is null or account_issuer = issuer
    or account_issuer like '%/*' and (issuer = '' or account_issuer = msal_logout.issuer_group(issuer))
$$;
