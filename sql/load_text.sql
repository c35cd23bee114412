-- `load` as one text, null for no row: generation, version, encoding and payload, with a space after each of the first three.
-- The payload of a `json` row stands there as it is; of any other, and of a damaged one, in base64, as does its encoding, after
-- a `=`. Without a row to copy and the payload's hexadecimal digits the database and the app take half the time for it.
create function msal_logout.load_text(client_id text, partition_key text) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
declare
  place text;
  payload bytea;
  encoding text;
begin
  select t.generation || ' ' || t.version, t.payload, t.encoding into place, payload, encoding
  from msal_logout.token_cache t
  where t.partition_key = load_text.partition_key and t.client_id is not distinct from load_text.client_id
    and t.expires_at > now()
    and msal_logout.may_use((select a.db_role from msal_logout.apps a where a.client_id = load_text.client_id));
  if not found then
    perform msal_logout.authorize(load_text.client_id);
    return null;
  end if;
  if encoding = 'json' then
    begin
      return place || ' json ' || convert_from(payload, 'UTF8');
    exception
      when character_not_in_repertoire then
        null;
    end;
  end if;
  return place || ' =' || encode(convert_to(encoding, 'UTF8'), 'base64') || ' ' || encode(payload, 'base64');
end
$$;
