-- The one place that locks: upserts rows of `tombstones` in the order of (key, issuer), one after the other, and raises what
-- they reject. The arrays stand side by side; a null key is passed over.
create function msal_logout.lock_keys(
  issuers text[], keys text[],
  revoke_befores bigint[] default null, sidless_revoke_befores bigint[] default null, remember_seconds int[] default null
) returns void
language plpgsql as $$
begin
  insert into msal_logout.tombstones as t (issuer, key, revoke_before, sidless_revoke_before, expires_at)
  select l.issuer, l.key, coalesce(max(l.revoke_before), 0), coalesce(max(l.sidless_revoke_before), 0),
    now() + interval '1 second' * coalesce(max(l.remember), 600)
  from unnest(issuers, keys, revoke_befores, sidless_revoke_befores, remember_seconds)
    as l (issuer, key, revoke_before, sidless_revoke_before, remember)
  where l.key is not null
  group by l.issuer, l.key
  order by l.key collate "C", l.issuer collate "C"
  on conflict (key, issuer) do update set
    revoke_before = greatest(t.revoke_before, excluded.revoke_before),
    sidless_revoke_before = greatest(t.sidless_revoke_before, excluded.sidless_revoke_before),
    expires_at = greatest(t.expires_at, excluded.expires_at);
end
$$;
