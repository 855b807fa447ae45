-- The first step of a process: creates the namespace if it is not there. Needs no common.lua.
--
-- KEYS[1] the prefix of all keys   ARGV[1] a new epoch   ARGV[2] the schema's version
-- Answers {epoch, version} of the namespace

local meta = KEYS[1] .. 'meta'
redis.call('HSETNX', meta, 'epoch', ARGV[1])
redis.call('HSETNX', meta, 'version', ARGV[2])
return redis.call('HMGET', meta, 'epoch', 'version')
