/** `@thaw/api/rpc`: what control plane and host agent speak. Apart, because a client of the REST API needs none of it. */
export * from './connect-error.ts';
export * from './gen/hostagent_pb.ts';
