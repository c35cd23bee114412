-- Ids are bounded so that any of them fits into an index. No signal and no purge names one with a control character in it: a session
-- under such an id could not be ended.
create function msal_logout.check_id(name text, value text) returns void
language plpgsql immutable as $$
begin
  if value is null or value = '' then
    raise exception '"%" must not be empty', name using errcode = 'invalid_parameter_value';
  end if;
  if octet_length(value) > 1024 then
    raise exception '"%" must have 1024 bytes or fewer: it has %', name, octet_length(value)
      using errcode = 'invalid_parameter_value';
  end if;
  if value ~ ('[' || chr(1) || '-' || chr(31) || chr(127) || '-' || chr(159) || ']' collate "C") then
    raise exception '"%" must have no control character in it', name using errcode = 'invalid_parameter_value';
  end if;
end
$$;
