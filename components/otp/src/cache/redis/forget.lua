-- Drops a code that is dead, unless a newer one is cached: it may have been made since.
-- KEYS[1] the number's key  ARGV[1] version
-- Returns the number of keys that were dropped.
local cached = redis.call('HGET', KEYS[1], 'version')
if cached and tonumber(cached) <= tonumber(ARGV[1]) then
  return redis.call('DEL', KEYS[1])
end
return 0
