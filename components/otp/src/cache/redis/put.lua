-- Keeps an account, unless the same or a newer state of it is kept: writers may come in any order, and the one that comes
-- last need not have the newest. An erased one is kept empty for a moment, so that none from before takes its place.
-- KEYS[1] the account  ARGV[1] revision  ARGV[2] account  ARGV[3] for how long, in milliseconds
-- Returns 1 if it was kept. Revisions are milliseconds since 1970: exact in a Lua number.
local kept = redis.pcall('HGET', KEYS[1], 'revision')
if type(kept) == 'table' then
  redis.call('DEL', KEYS[1])
elseif kept and tonumber(kept) and tonumber(kept) >= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'revision', ARGV[1], 'account', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
