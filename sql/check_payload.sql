-- What every function that stores a payload asks of it.
create function msal_logout.check_payload(partition_key text, payload bytea, encoding text, ttl interval) returns void
language plpgsql stable as $$
begin
  perform msal_logout.check_id('partition_key', partition_key);
  if payload is null then
    raise exception '"payload" must not be null' using errcode = 'invalid_parameter_value';
  end if;
  if encoding is null or encoding = '' or octet_length(encoding) > 255 then
    raise exception '"encoding" must have 1 to 255 bytes' using errcode = 'invalid_parameter_value';
  end if;
  if ttl is null or ttl <= interval '0' or ttl > interval '10 years' then
    raise exception '"ttl" must be positive, and 10 years or less' using errcode = 'invalid_parameter_value';
  end if;
  if encoding = 'json' and not msal_logout.is_json_object(payload) then
    raise exception '"payload" must be a JSON object in UTF-8, since "encoding" is json'
      using errcode = 'invalid_parameter_value',
        hint = 'pass the bytes of the text; a text literal with a backslash in it is read as an escape';
  end if;
end
$$;
