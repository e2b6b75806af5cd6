-- find ID HASH: whose key is it? Read-only; O(1).
-- Result   {position}, or with the key {position, expires, revoked, client, weight, enabled, group,
--          weight of the organisation, weight of the team, class} ("" where there is none here).
local id, hash = unpack(ARGV)
local key = call('HMGET', key_of('key', id), 'hash', 'client', 'expires', 'revoked')
if key[1] ~= hash then return {position()} end
local client = call('HMGET', key_of('client', key[2]), 'weight', 'enabled', 'group', 'class')
local group = client[3] or ''
local organisation = string.match(group, '^[^/]+') or ''
return {position(), key[3], key[4], key[2], client[1], client[2], group,
        call('HGET', key_of('group', organisation), 'weight') or '',
        group ~= organisation and call('HGET', key_of('group', group), 'weight') or '', client[4] or ''}
