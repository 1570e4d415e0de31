/** Who may call a guest's ports, and how, as clients of the E2B API say it. */
import { z } from 'zod';
import type { Ingress } from '../../db/schema.ts';

const AGENT_PORT = 49_983;

/** The part of a network configuration that is about calls from outside; fields may be null or left out. */
export const IngressWish = z.object({
  allowPublicTraffic: z.boolean().nullish(),
  maskRequestHost: z
    .string()
    .min(1)
    .max(255)
    .regex(/^[\x21-\x7e]+$/, 'must be a host name of printable ASCII characters')
    .nullish(),
  httpsPorts: z
    .array(
      z
        .int()
        .min(1)
        .max(65_535)
        .refine((port) => port !== AGENT_PORT, `${AGENT_PORT} is the guest agent's`),
    )
    .max(64)
    .nullish(),
});
export type IngressWish = z.output<typeof IngressWish>;

export function toIngress({ allowPublicTraffic, maskRequestHost, httpsPorts }: IngressWish): Ingress {
  return {
    ...(typeof allowPublicTraffic === 'boolean' && { allow_public_traffic: allowPublicTraffic }),
    ...(typeof maskRequestHost === 'string' && { mask_request_host: maskRequestHost }),
    ...(httpsPorts && { https_ports: httpsPorts }),
  };
}
