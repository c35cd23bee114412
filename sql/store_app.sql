-- Tokens of the app's own (client credentials); no account.
create function msal_logout.store_app(
  client_id text, partition_key text, payload bytea, encoding text, ttl interval
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  asked_at timestamptz := now();
begin
  perform msal_logout.authorize(store_app.client_id);
  perform msal_logout.check_payload(store_app.partition_key, store_app.payload, store_app.encoding, store_app.ttl);
  insert into msal_logout.token_cache as t (client_id, partition_key, kind, generation, payload, encoding, expires_at)
  values (
    store_app.client_id, store_app.partition_key, 'app', msal_logout.new_generation(),
    store_app.payload, store_app.encoding, asked_at + store_app.ttl)
  on conflict (partition_key, client_id) do update set
    kind = excluded.kind,
    account_issuer = excluded.account_issuer,
    home_account_id = excluded.home_account_id,
    version = t.version + 1,
    payload = excluded.payload,
    encoding = excluded.encoding,
    updated_at = excluded.updated_at,
    expires_at = excluded.expires_at
  where t.kind = 'app' or t.expires_at <= asked_at;
  if not found then
    raise exception 'partition belongs to an account' using errcode = 'ML001';
  end if;
end
$$;
