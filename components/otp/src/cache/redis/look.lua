-- What is known of a number.
-- KEYS[1] its code  KEYS[2] until when it is at its limit
-- Returns version, sealed code, moment; each an empty string if there is none.
local code = redis.call('HMGET', KEYS[1], 'version', 'sealed')
return {code[1] or '', code[2] or '', redis.call('GET', KEYS[2]) or ''}
