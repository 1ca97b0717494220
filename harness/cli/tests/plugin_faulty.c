/* The example with a fault that ASSAY_PLUGIN_FAULT names: what test_plugin.py must see told. */
#define assay_plugin example_plugin
#include "harness/host/plugin_example.c"
#undef assay_plugin

#include <signal.h>

static const char* fault(void) {
  const char* name = getenv("ASSAY_PLUGIN_FAULT");
  return name == NULL ? "" : name;
}

static int is(const char* name) { return strcmp(fault(), name) == 0; }

static int32_t faulty_forward(const assay_problem* p, const assay_results* r, char* why, int64_t why_size) {
  static int calls = 0;
  ++calls;
  const int64_t elements = p->tokens * p->hidden_size;
  if (is("unsupported") || is("failed")) {
    strncpy(why, "needs 3 experts", (size_t)why_size - 1);
    return is("failed") ? ASSAY_FAILED : ASSAY_UNSUPPORTED;
  }
  if (is("no sentence")) return 42;
  if (is("crash")) raise(SIGSEGV);
  if (is("abort on other tokens") && calls == 2) abort();
  const int32_t status = forward(p, r, why, why_size);
  if (is("behind")) r->hidden_states[elements] = 0;
  if (is("before")) r->first_gemm[-1] = 0;
  if (is("input")) ((uint16_t*)p->down_proj)[5] ^= 1;
  if (is("not written")) r->hidden_states[elements - 1] = 0xffff; /* as it was found */
  if (is("left over") && calls == 3) r->first_gemm[7] ^= 1;
  if (is("wrong the first time") && calls == 1) memset(r->intermediate, 0, 64);
  if (is("half")) r->second_gemm[3] = to_bf16(0.5f * from_bf16(r->second_gemm[3]));
  return status;
}

const assay_plugin_row* assay_plugin(void) {
  static assay_plugin_row row;
  row = *example_plugin();
  row.forward = faulty_forward;
  if (is("interface")) row.interface = 7;
  if (is("memory")) row.memory = 5;
  if (is("no device")) row.memory = ASSAY_DEVICE;
  if (is("fields")) row.fields = "hidden_states hidden_state";
  if (is("no fields")) row.fields = " ";
  if (is("weights")) row.fields = "gate";
  if (is("contract")) row.contract = "fp8";
  if (is("accumulators")) row.accumulators = "tensor core";
  if (is("ties")) row.ties = "highest_index";
  if (is("null")) row.ties = NULL;
  if (is("no forward")) row.forward = NULL;
  return is("no row") ? NULL : &row;
}
