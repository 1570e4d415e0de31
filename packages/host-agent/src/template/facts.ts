/** A template as the host keeps it: a head whose facts are these. */
import { z } from 'zod';
import type { Build } from '../build/build.ts';
import type { Facts } from '../build/head.ts';
import { type BuildSize, measureBuild } from '../build/measure.ts';

const MIB = 2 ** 20;

const schema = z.object({
  name: z.string(),
  type: z.enum(['base', 'snapshot']),
  /** 0 for base templates: chosen at create. */
  memoryMb: z.number().int().nonnegative(),
  /** The last identity that the frozen guest knows: a spawn's is larger. */
  counter: z.number().int().nonnegative(),
  /** Seconds since 1970. */
  createdAt: z.number().int(),
  /** What a base template was imported from. */
  image: z.string().optional(),
});

export type TemplateFacts = z.infer<typeof schema>;

export interface Template extends TemplateFacts {
  id: string;
  /** 0 for base templates. */
  vcpus: number;
  /** The smallest disk of a base template, the disk of a snapshot. */
  diskMb: number;
  build: BuildSize;
}

/** A template whose head or build can't be read: it is still there, and nothing can start from it. */
export interface DamagedTemplate {
  id: string;
  /** Undefined when the head itself can't be read. */
  facts: TemplateFacts | undefined;
  errorReason: string;
}

export function templateFacts(facts: Facts): TemplateFacts {
  return schema.parse(facts);
}

export async function templateOf(id: string, facts: TemplateFacts, build: Build): Promise<Template> {
  return {
    ...facts,
    id,
    vcpus: build.manifest.machine?.vcpus ?? 0,
    diskMb: build.disk.header.size / MIB,
    build: await measureBuild(build),
  };
}
