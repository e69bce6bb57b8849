// To read only: the service that answers is elsewhere, and its own /docs is the page to try things on.
const withoutKeys = () => ({
  wrapComponents: { authorizeBtn: () => () => null, authorizeOperationBtn: () => () => null },
});

SwaggerUIBundle({
  dom_id: '#reference',
  url: 'openapi.yaml',
  plugins: [withoutKeys],
  deepLinking: true,
  showExtensions: true, // x-roles: who may call
  supportedSubmitMethods: [],
  validatorUrl: null,
});
