-- Does what serving does, to see whether it may: a script that writes. Nothing stays behind.
-- KEYS[1] a key that nothing else uses
redis.call('SET', KEYS[1], '')
redis.call('DEL', KEYS[1])
return 1
