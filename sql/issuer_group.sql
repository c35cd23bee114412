-- The issuers that share accounts with this one: ids from client info mean the same user to them. Those of one origin, as the tenants of
-- Entra ID, and what `share_accounts` has added. Written as its origin with `/*`, which no issuer ends in.
create function msal_logout.issuer_group(issuer text) returns text
language sql stable as $$
  select coalesce((select g.issuer_group from msal_logout.issuer_groups g where g.origin = o.origin), o.origin || '/*')
  from (
    select coalesce(lower(substring(issuer collate "C" from '^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+')), issuer collate "C") as origin
  ) o
$$;
