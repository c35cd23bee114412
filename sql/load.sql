-- The hot path of every app: who may not, finds nothing, and gets the reason in a second look.
create function msal_logout.load(
  client_id text, partition_key text
) returns table (generation bigint, version bigint, payload bytea, encoding text)
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
begin
  return query
    select t.generation, t.version, t.payload, t.encoding
    from msal_logout.token_cache t
    where t.partition_key = load.partition_key and t.client_id is not distinct from load.client_id and t.expires_at > now()
      and msal_logout.may_use((select a.db_role from msal_logout.apps a where a.client_id = load.client_id));
  if not found then
    perform msal_logout.authorize(load.client_id);
  end if;
end
$$;
