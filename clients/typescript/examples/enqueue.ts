import { createClient } from "redis";
import { Client, JobRefused, overPostgrest } from "uvian-client";

const redis = await createClient({ url: process.env.REDIS_URL! })
  .on("error", console.error)
  .connect();

const uvian = new Client({
  call: overPostgrest({
    url: process.env.SUPABASE_REST_URL!, // https://<ref>.supabase.co/rest/v1
    key: process.env.SUPABASE_SECRET_KEY!,
  }),
  redis: { eval: (script, keys, args) => redis.eval(script, { keys, arguments: args }) },
});

export async function createConcept(userId: string, logo: string, theme: string, requestId: string) {
  try {
    const job = await uvian.submit({
      userId,
      type: "generation",
      input: { logo_description: logo, theme_description: theme },
      idempotencyKey: requestId,
    });
    return { jobId: job.id };
  } catch (error) {
    if (error instanceof JobRefused) return { refused: error.code }; // insufficient_credits, …
    throw error;
  }
}

export async function cancelConcept(userId: string, jobId: string) {
  return (await uvian.cancel(jobId, { userId })).status;
}
