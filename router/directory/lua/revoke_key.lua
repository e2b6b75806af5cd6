-- revoke_key ID: at once and for good. Once more has no effect.
local id = ARGV[4]
if not exists('key', id) then return {'unknown'} end
local record = key_of('key', id)
if call('HGET', record, 'revoked') == '0' then
  call('HSET', record, 'revoked', now())
  log('key.revoke', 'client:' .. call('HGET', record, 'client'), id)
end
return {'ok', call('HGETALL', record)}
