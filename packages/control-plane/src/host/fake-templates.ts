/** The templates of the fake host agent: entries of a map. */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { ServiceImpl } from '@connectrpc/connect';
import { ThawError } from '@thaw/api';
import {
  type HostAgentService,
  type SandboxInfo,
  type Template,
  TemplateSchema,
  toConnectError,
} from '@thaw/api/rpc';

type Calls = Pick<
  ServiceImpl<typeof HostAgentService>,
  'createSnapshot' | 'tagTemplate' | 'deleteSnapshot' | 'listTemplates'
>;

interface Around {
  /** To be called first by each. */
  enter(rpc: keyof Calls): Promise<void>;
  /** Gives the sandbox a new build. */
  seal(sandboxId: string): SandboxInfo;
}

export function addTemplate(
  templates: Map<string, Template>,
  fields: Omit<MessageInitShape<typeof TemplateSchema>, '$typeName'>,
): Template {
  const now = BigInt(Math.floor(Date.now() / 1000));
  const template = create(TemplateSchema, { createdAtUnix: now, ...fields });
  templates.set(template.id, template);
  return template;
}

export function fakeTemplates(templates: Map<string, Template>, { enter, seal }: Around): Calls {
  return {
    createSnapshot: async (request) => {
      await enter('createSnapshot');
      const sandbox = seal(request.sandboxId);
      const { vcpus, memoryMb, diskMb, build } = sandbox;
      const { templateId: id, name } = request;
      const fields = { id, name, type: 'snapshot', vcpus, memoryMb, diskMb, ...(build && { build }) };
      return { template: addTemplate(templates, fields), sandbox };
    },
    tagTemplate: async ({ sourceTemplateId, templateId: id, name }) => {
      await enter('tagTemplate');
      const source = templates.get(sourceTemplateId);
      if (source === undefined) throw toConnectError(new ThawError('not_found', 'no such template'));
      return { template: addTemplate(templates, { ...source, id, name }) };
    },
    deleteSnapshot: async (request) => {
      await enter('deleteSnapshot');
      templates.delete(request.templateId);
      return {};
    },
    listTemplates: async () => {
      await enter('listTemplates');
      return { templates: [...templates.values()] };
    },
  };
}
