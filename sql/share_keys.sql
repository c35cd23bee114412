-- Keeps a sweep of an app or a tenant from starting while this transaction stores a login. Logins do not wait for each
-- other.
create function msal_logout.share_keys(keys text[]) returns void
language plpgsql as $$
declare
  k text;
begin
  foreach k in array keys loop
    continue when k is null;
    loop
      perform from msal_logout.tombstones t where t.issuer = '' and t.key = k for share;
      exit when found;
      insert into msal_logout.tombstones (issuer, key, expires_at) values ('', k, now() + interval '1 day')
      on conflict (key, issuer) do nothing;
    end loop;
  end loop;
end
$$;
