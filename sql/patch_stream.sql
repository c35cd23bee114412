-- Writes members of a stream's state; those that are null go. `holder`: false if another instance has the lease by now, and nothing
-- is written; null: any may have it, since an operator orders it, or the transmitter says so.
create function msal_logout.patch_stream(name text, holder uuid, patch jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
  if patch_stream.holder is null then
    insert into msal_logout.streams (name) values (patch_stream.name) on conflict (name) do nothing;
  end if;
  update msal_logout.streams s set state = jsonb_strip_nulls(s.state || patch_stream.patch)
  where s.name = patch_stream.name
    and (patch_stream.holder is null or s.holder = patch_stream.holder and s.held_until > now());
  return found;
end
$$;
