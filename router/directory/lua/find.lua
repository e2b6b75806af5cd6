-- find ID HASH: whose key is it? Read-only; O(1).
-- Result   {position}, or with the key {position, expires, revoked, client, weight, enabled, group,
--          limits, weight and limits of the organisation, of the team, class} ("" where there is none here).
local id, hash = unpack(ARGV)
local key = call('HMGET', key_of('key', id), 'hash', 'client', 'expires', 'revoked')
if key[1] ~= hash then return {position()} end
local client = call('HMGET', key_of('client', key[2]), 'weight', 'enabled', 'group', 'limits', 'class')
local group = client[3] or ''
local organisation = string.match(group, '^[^/]+') or ''
local none = {false, false}
local above = call('HMGET', key_of('group', organisation), 'weight', 'limits')
local team = group ~= organisation and call('HMGET', key_of('group', group), 'weight', 'limits') or none
return {position(), key[3], key[4], key[2], client[1], client[2], group, client[4] or '', above[1] or '', above[2] or '',
        team[1] or '', team[2] or '', client[5] or ''}
