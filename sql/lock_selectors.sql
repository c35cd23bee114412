-- Locks 2 of a sign-out, see `admit`: the keys of sessions and objects. Beside the sid the subject, since a login stored without a sid is
-- ended by it. What nobody is to remember locks what is there.
create function msal_logout.lock_selectors(orders msal_logout.signal_order[]) returns void
language plpgsql as $$
begin
  perform msal_logout.lock_keys(
    array_agg(k.issuer), array_agg(k.key), array_agg(o.revoke_before), null, array_agg(o.remember_seconds))
  from unnest(orders) o
  cross join lateral (values
    (o.issuer, 'sid=' || o.sid),
    (o.issuer, case o.selector when 'subject' then 'all=' else 'sub=' end || o.subject),
    ('', 'object=' || o.tenant_id || '/' || o.object_id)
  ) k (issuer, key)
  where o.remember_seconds > 0 or exists (
    select from msal_logout.sessions s where s.issuer = o.issuer and s.session_key = 'sid=' || o.sid offset 0);
end
$$;
