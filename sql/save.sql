-- Never creates a row: what a purge deleted, no refresh that was under way brings back.
create function msal_logout.save(
  client_id text, partition_key text, generation bigint, version bigint, payload bytea, encoding text, ttl interval
) returns msal_logout.saved
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  new_version bigint;
  owner_issuer text;
  owner_id text;
  is_conflict boolean;
begin
  perform msal_logout.authorize(save.client_id);
  perform msal_logout.check_payload(save.partition_key, save.payload, save.encoding, save.ttl);
  update msal_logout.token_cache t set
    version = t.version + 1,
    payload = save.payload,
    encoding = save.encoding,
    updated_at = now(),
    expires_at = now() + save.ttl
  where t.partition_key = save.partition_key and t.client_id is not distinct from save.client_id
    and t.generation = save.generation and t.version = save.version
    and t.expires_at > now() and t.kind <> 'app'
  returning t.version, t.account_issuer, t.home_account_id into new_version, owner_issuer, owner_id;
  if not found then
    is_conflict := exists (
      select from msal_logout.token_cache t
      where t.partition_key = save.partition_key and t.client_id is not distinct from save.client_id
        and t.generation = save.generation and t.expires_at > now() and t.kind <> 'app');
    return (case when is_conflict then 'conflict' else 'gone' end, null)::msal_logout.saved;
  end if;

  perform msal_logout.renew_sessions(save.client_id, save.partition_key, owner_issuer, owner_id, save.ttl);
  return ('saved', new_version)::msal_logout.saved;
end
$$;
