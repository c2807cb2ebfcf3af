-- Move ids from the queue to the claiming set, where they stand until Postgres has answered their claim.
-- It comes after arq.lua.
-- ARGV: namespace, how many to take, how many ids enter, those ids, then the ids whose claim is over.
-- An id enters when arq has picked it: 1 if it still waits for a worker, else 0.
-- Answers {1 or 0 for each id that enters, ids taken}.

local QUEUE, CLAIMING = ARGV[1] .. ':queue', ARGV[1] .. ':claiming'
local wanted, entering = tonumber(ARGV[2]), tonumber(ARGV[3])
local CLOCK = redis.call('TIME')
local NOW = string.format('%.0f', tonumber(CLOCK[1]) * 1000 + math.floor(tonumber(CLOCK[2]) / 1000))
local SPARE = 64 -- ids at the head that arq is picking at this moment

local entered, taken = {}, {}
for index = 1, entering do
  local id = ARGV[3 + index]
  local waits = redis.call('ZREM', QUEUE, id) == 1 or redis.call('ZSCORE', CLAIMING, id)
  if waits then redis.call('ZADD', CLAIMING, NOW, id) end
  entered[index] = waits and 1 or 0
end
for index = 4 + entering, #ARGV do redis.call('ZREM', CLAIMING, ARGV[index]) end
if wanted > 0 then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', QUEUE, '-inf', NOW, 'LIMIT', 0, wanted + SPARE)) do
    if #taken == wanted then break end
    if arq_leaves(id) then
      redis.call('ZREM', QUEUE, id)
      redis.call('ZADD', CLAIMING, NOW, id)
      taken[#taken + 1] = id
    end
  end
end
return {entered, taken}
