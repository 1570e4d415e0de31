import type { MessageInitShape } from '@bufbuild/protobuf';
import type { GetSamplesRequest, SampleSchema, SandboxSamplesSchema } from '@thaw/api/rpc';
import type { Host } from '../host.ts';
import type { Sample } from '../sample/ring.ts';

export async function samplesInfo(
  { registry, sampler }: Host,
  { sandboxIds, fromUnixMs, toUnixMs, latest }: GetSamplesRequest,
): Promise<MessageInitShape<typeof SandboxSamplesSchema>[]> {
  const fromMs = Number(fromUnixMs);
  const toMs = toUnixMs === 0n ? undefined : Number(toUnixMs);
  const found = [];
  for (const sandboxId of sandboxIds) {
    if (!registry.has(sandboxId)) continue;
    const last = latest ? [await sampler.latest(sandboxId)].filter((one) => one !== undefined) : undefined;
    const samples = last ?? (await sampler.between(sandboxId, fromMs, toMs));
    found.push({ sandboxId, samples: samples.map(sampleInfo) });
  }
  return found;
}

function sampleInfo(sample: Sample): MessageInitShape<typeof SampleSchema> {
  return {
    unixMs: BigInt(Math.round(sample.atMs)),
    cpuCount: sample.cpuCount,
    cpuUsedPct: sample.cpuUsedPct,
    memUsedBytes: BigInt(sample.memUsedBytes),
    memTotalBytes: BigInt(sample.memTotalBytes),
    memCacheBytes: BigInt(sample.memCacheBytes),
    diskUsedBytes: BigInt(sample.diskUsedBytes),
    diskTotalBytes: BigInt(sample.diskTotalBytes),
  };
}
