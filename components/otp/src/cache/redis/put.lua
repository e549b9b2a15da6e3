-- Caches a code for the rest of its life, unless the same or a newer one is cached: writers may come in
-- any order, and the one that comes last need not have the newest code. Nor is one cached of a number that was erased a
-- moment ago: it may be from before.
-- KEYS[1] its code  KEYS[2] until when it is at its limit  ARGV[1] version  ARGV[2] sealed code  ARGV[3] life in milliseconds
-- Returns 1 if it was cached. Versions are milliseconds since 1970: exact in a Lua number.
if redis.call('GET', KEYS[2]) == '' then
  return 0
end
local cached = redis.call('HGET', KEYS[1], 'version')
if cached and tonumber(cached) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'sealed', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
