-- An app lets go of one row of its own accord; no purge, and no record.
create function msal_logout.forget(client_id text, partition_key text, generation bigint) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  owner_issuer text;
  owner_id text;
begin
  perform msal_logout.authorize(forget.client_id);
  select t.account_issuer, t.home_account_id into owner_issuer, owner_id
  from msal_logout.token_cache t
  where t.partition_key = forget.partition_key and t.client_id is not distinct from forget.client_id
    and t.generation = forget.generation and t.kind <> 'app';
  if not found then
    return false;
  end if;
  perform msal_logout.lock_keys(array[owner_issuer], array['account=' || owner_id]);
  delete from msal_logout.token_cache t
  where t.partition_key = forget.partition_key and t.client_id is not distinct from forget.client_id
    and t.generation = forget.generation and t.kind <> 'app';
  if not found then
    return false;
  end if;
  delete from msal_logout.sessions s
  where s.partition_key = forget.partition_key and s.client_id is not distinct from forget.client_id;
  return true;
end
$$;
