export { Client, type ClientOptions, type Door, type Job, type NewJob, type SubmittedJob } from "./enqueue.js";
export {
  type Call,
  DatabaseAway,
  JobRefused,
  NotSetUp,
  overPostgrest,
  overSupabase,
  type PostgrestOptions,
  StatementTooSlow,
  type SupabaseLike,
} from "./database.js";
export type { Dispatched, RedisLike } from "./redis.js";
export * from "./events.js";
export {
  type ConnectionState,
  type EndReason,
  type Listener,
  Live,
  type LiveOptions,
  type Subscription,
  type TopicState,
  type WebSocketLike,
} from "./live.js";
export { AssembledMessage, MessageAssembler, type MessageState } from "./messages.js";
