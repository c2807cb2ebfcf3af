import { createClient } from "redis";
import { Client, overPostgrest } from "uvian-client";

const redis = await createClient({ url: process.env.REDIS_URL! }).on("error", console.error).connect();
const uvian = new Client({
  call: overPostgrest({ url: process.env.SUPABASE_REST_URL!, key: process.env.SUPABASE_SECRET_KEY! }),
  redis: { eval: (script, keys, args) => redis.eval(script, { keys, arguments: args }) },
});

export function submitConcept(userId: string, logo: string, theme: string, requestId: string) {
  const input = { logo_description: logo, theme_description: theme };
  return uvian.submit({ userId, type: "generation", input, idempotencyKey: requestId });
}
