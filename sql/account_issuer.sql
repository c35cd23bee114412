-- Whose account it is: of a bare `sub` its issuer's, of an id from client info its group's.
create function msal_logout.account_issuer(issuer text, subject text, home_account_id text) returns text
language sql stable as $$
  select case when home_account_id = subject then issuer else msal_logout.issuer_group(issuer) end
$$;
