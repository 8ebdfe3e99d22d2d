"use strict";

// Starts GraphiQL with the ready operations, and keeps the variable `id` at the job that was enqueued last,
// until somebody edits the variables.
(async () => {
  const socket = new URL("graphql", location.href);
  socket.protocol = socket.protocol.replace("http", "ws");
  const fetcher = GraphiQL.createFetcher({
    url: "graphql",
    enableIncrementalDelivery: false, // plain answers, which lastEnqueued can read
    wsClient: graphqlWs.createClient({ url: socket.href }),
  });
  const operations = await (await fetch("graphiql/operations.graphql")).text();
  const newest = await latestJob(fetcher);
  ReactDOM.render(
    React.createElement(Page, { fetcher, operations, newest }),
    document.getElementById("graphiql"),
  );
})();

function Page({ fetcher, operations, newest }) {
  const [variables, setVariables] = React.useState(variablesFor(newest));
  const shown = React.useRef(variables);

  async function execute(parameters, options) {
    const answer = await fetcher(parameters, options);
    const job = lastEnqueued(answer);
    if (job !== undefined && shown.current === variables) {
      shown.current = variablesFor(job);
      setVariables(shown.current);
    }
    return answer;
  }

  return React.createElement(GraphiQL, {
    fetcher: execute,
    defaultQuery: operations,
    variables,
    onEditVariables: (text) => { shown.current = text; },
    defaultEditorToolsVisibility: "variables",
  });
}

function variablesFor(id) {
  return JSON.stringify({ id }, null, 2);
}

function lastEnqueued(answer) {
  const results = Object.values((answer && answer.data) || {});
  return results.filter((result) => result && result.task && result.id).map((result) => result.id).pop();
}

async function latestJob(fetcher) {
  const answer = await fetcher({ query: "{ jobsConnection(first: 1) { nodes { id } } }" });
  const [job] = answer.data ? answer.data.jobsConnection.nodes : [];
  return job ? job.id : "none-yet";
}
