/**
 * Thaw for agents that speak the Model Context Protocol: sandboxes as tools, by standard input and output.
 *
 *   {"mcpServers": {"thaw": {"command": "node", "args": ["examples/mcp/main.ts"],
 *     "env": {"E2B_API_URL": "http://127.0.0.1:8080", "E2B_SANDBOX_URL": "http://127.0.0.1:8081", "E2B_API_KEY": "…"}}}}
 *
 * The sandboxes that it makes end with their timeouts, not with the server: an agent may come back to them by their ids.
 */
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { addFileTools } from './files.ts';
import { addSandboxTools } from './sandboxes.ts';

const server = new McpServer({ name: 'thaw', version: '0.1.0' });
addSandboxTools(server);
addFileTools(server);
await server.connect(new StdioServerTransport());
