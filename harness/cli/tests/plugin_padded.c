/* The example with every expert's rows from a multiple of 8 on, and with a fault that ASSAY_PLUGIN_FAULT
   names: what test_plugin_padded.py must see told. It works on rows without padding of its own and spreads
   them. */
#define assay_plugin example_plugin
#include "harness/host/plugin_example.c"
#undef assay_plugin

enum { kAlignment = 8 };

static int is(const char* name) {
  const char* fault = getenv("ASSAY_PLUGIN_FAULT");
  return fault != NULL && strcmp(fault, name) == 0;
}

static int64_t room_rows(const assay_problem* p) {
  return p->tokens * p->top_k + p->num_experts * (kAlignment - 1);
}

/* Rows without padding of a field in expert order: where it may have been left from the call before. */
enum { kGather, kFirst, kIntermediate, kSecond, kDSecond, kDIntermediate, kDFirst, kDPermuted, kFields };
static void* whole[kFields];
static int32_t *selected, *counts; /* as forward left them, whether listed or not */

static void* fresh(void** room, size_t bytes) {
  free(*room);
  *room = calloc(bytes + 1, 1);
  if (*room == NULL) abort();
  return *room;
}

static size_t row_bytes(const assay_problem* p, int field) {
  const size_t H = (size_t)p->hidden_size, I = (size_t)p->moe_intermediate_size;
  const size_t bytes[kFields] = {4, 4 * I, 2 * I, 2 * H, 2 * H, 2 * I, 4 * I, 2 * H};
  return bytes[field];
}

static void* rows_of(const assay_problem* p, int field) {
  return fresh(&whole[field], (size_t)(p->tokens * p->top_k) * row_bytes(p, field));
}

/* What is between the rows is as it was found, unless the fault fills it: with other values in every call. */
static void spread(const assay_problem* p, int field, void* padded) {
  static int calls = 0;
  const size_t bytes = row_bytes(p, field);
  const int64_t alignment = is("other alignment") ? 2 * kAlignment : kAlignment;
  const char* from = whole[field];
  int64_t to = 0;
  if (padded == NULL) return;
  if (is("garbage")) memset(padded, ++calls % 120 + 1, (size_t)room_rows(p) * bytes);
  for (int64_t e = 0; e < p->num_experts; ++e) {
    const int64_t moved = is("moved rows") && field == kSecond && e == 1;
    for (int64_t row = 0; row < counts[e]; ++row, from += bytes)
      if (to + row + moved < room_rows(p)) memcpy((char*)padded + (to + row + moved) * bytes, from, bytes);
    to += (counts[e] + alignment - 1) / alignment * alignment;
  }
  if (is("behind the room") && field == kSecond) ((char*)padded)[room_rows(p) * bytes] = 0;
}

static assay_results with_whole_rows(const assay_results* r) {
  assay_results all = *r;
  all.selected_experts = selected;
  all.token_counts_by_expert = counts;
  all.gather_indices = whole[kGather];
  all.first_gemm = whole[kFirst];
  all.intermediate = whole[kIntermediate];
  all.second_gemm = whole[kSecond];
  return all;
}

static int32_t padded_forward(const assay_problem* p, const assay_results* r, char* why, int64_t why_size) {
  const size_t slots = (size_t)(p->tokens * p->top_k), experts = (size_t)p->num_experts;
  fresh((void**)&selected, slots * sizeof(int32_t));
  fresh((void**)&counts, experts * sizeof(int32_t));
  for (int field = kGather; field <= kSecond; ++field) rows_of(p, field);
  const assay_results all = with_whole_rows(r);
  const int32_t status = forward(p, &all, why, why_size);
  void* const padded[] = {r->gather_indices, r->first_gemm, r->intermediate, r->second_gemm};
  for (int field = kGather; field <= kSecond; ++field) spread(p, field, padded[field]);
  if (r->selected_experts != NULL) memcpy(r->selected_experts, selected, slots * sizeof(int32_t));
  if (r->token_counts_by_expert != NULL) memcpy(r->token_counts_by_expert, counts, experts * sizeof(int32_t));
  if (is("no such expert")) {
    r->selected_experts[1] = 99;
    r->token_counts_by_expert[0] += 1;
  }
  return status;
}

static int32_t padded_backward(const assay_problem* p, const assay_results* r, const uint16_t* d_out,
                               const assay_gradients* g, char* why, int64_t why_size) {
  const assay_results all = with_whole_rows(r);
  assay_gradients whole_rows = *g;
  assay_gradient* const of[] = {&whole_rows.d_second_gemm, &whole_rows.d_intermediate,
                                &whole_rows.d_first_gemm, &whole_rows.d_permuted_hidden_states};
  void* padded[4];
  for (int i = 0; i < 4; ++i) {
    padded[i] = of[i]->values;
    if (padded[i] != NULL) of[i]->values = rows_of(p, kDSecond + i);
  }
  const int32_t status = backward(p, &all, d_out, &whole_rows, why, why_size);
  for (int i = 0; i < 4; ++i) spread(p, kDSecond + i, padded[i]);
  if (is("gradient's moved rows")) {
    char* rows = padded[2];
    memmove(rows + row_bytes(p, kDFirst), rows, row_bytes(p, kDFirst));
  }
  return status;
}

const assay_plugin_row* assay_plugin(void) {
  static assay_plugin_row row;
  row = *example_plugin();
  row.name = "padded plain C";
  row.forward = padded_forward;
  row.backward = padded_backward;
  row.ties = "lowest_index row_alignment=8";
  if (is("rows in any order, too")) row.ties = "lowest_index row_alignment=8 rows_any";
  if (is("not declared")) row.ties = "lowest_index";
  if (is("zero")) row.ties = "lowest_index row_alignment=0";
  if (is("negative")) row.ties = "lowest_index row_alignment=-8";
  if (is("too large")) row.ties = "lowest_index row_alignment=65537";
  if (is("no number")) row.ties = "lowest_index row_alignment=8x";
  if (is("unknown word")) row.ties = "lowest_index rows_aligned";
  if (is("no ties")) row.ties = "row_alignment=8";
  if (is("counts alone"))
    row.fields =
        "router_logits topk_weights token_counts_by_expert gather_indices first_gemm intermediate "
        "second_gemm "
        "hidden_states_unpermute hidden_states";
  if (is("no counts")) row.fields = "gather_indices second_gemm hidden_states";
  if (is("counts alone") || is("no counts")) {
    row.gradients = NULL;
    row.backward = NULL;
  }
  return &row;
}
