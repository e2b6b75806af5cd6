-- rotate_key OLD ID HASH OVERLAP: a new key beside the old one, which ends after OVERLAP
-- milliseconds if not before. The new one has the old one's label and lifetime.
local old, id, hash, overlap = unpack(ARGV, 4)
if not exists('key', old) then return {'unknown'} end
local record = key_of('key', old)
local key = call('HMGET', record, 'client', 'label', 'lifetime', 'expires', 'revoked')
local client, label, lifetime, expires = key[1], key[2], tonumber(key[3]), tonumber(key[4])
local time = now()
if key[5] ~= '0' or (expires > 0 and expires <= time) then return {'dead'} end
local refused = add_key(client, id, hash, label, time, lifetime)
if refused then return {refused} end
local ends = time + tonumber(overlap)
if expires == 0 or ends < expires then call('HSET', record, 'expires', ends) end
log('key.rotate', 'client:' .. client, old)
return {'ok', call('HGETALL', key_of('key', id))}
