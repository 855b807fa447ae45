-- The first step on a new connection. Needs no common.lua.
--
-- KEYS[1] the prefix of all keys   ARGV[1] an epoch, to create the namespace if it is not there; ''
-- to look only   ARGV[2] the schema's version
-- Answers {epoch, version} of the namespace, or nils

local meta = KEYS[1] .. 'meta'
if ARGV[1] ~= '' and redis.call('HEXISTS', meta, 'epoch') == 0 then
  redis.call('HSETNX', meta, 'epoch', ARGV[1])
  redis.call('HSETNX', meta, 'version', ARGV[2])
end
return redis.call('HMGET', meta, 'epoch', 'version')
