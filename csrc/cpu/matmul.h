// matmul: a batch of products of matrices, with the tile of gemm.h. Either factor may be stored
// transposed: the tile reads a with any step, and b is packed a stretch of terms at a time.
namespace convlet::CONVLET_ISA {

struct MatmulWork {
  float* blocks;  // per worker: b, packed
  Row* rows;      // per worker
  std::size_t bytes;
};

inline MatmulWork make_matmul_work(int threads, void* memory) {
  Workspace workspace(memory);
  MatmulWork work;
  work.blocks = workspace.take<float>(kStretch * kDenseColumns * threads);
  work.rows = workspace.take<Row>(kDenseRows * threads);
  work.bytes = workspace.bytes();
  return work;
}

inline std::size_t matmul_workspace(const MatmulShape&, int threads) {
  return make_matmul_work(threads, nullptr).bytes;
}

// `rows` rows and the columns [column, end) of one product; a and y begin at the first row.
inline void matmul_piece(const MatmulShape& s, const float* a, const Row* rows,
                         std::int64_t row_count, const float* b, std::int64_t column,
                         std::int64_t end, float* block, float* y) {
  const Panels panels = {end - column};
  const std::int64_t a_step = s.transpose_a ? s.M : 1;
  for (std::int64_t k = 0; k < s.K; k += kStretch) {
    const Run run = {k * a_step, smaller(kStretch, s.K - k), a_step, 0};
    for (std::int64_t p = 0; p < panels.count(); ++p) {
      const std::int64_t n = column + p * kPanel;
      const int columns = panels.columns_of(p), width = panels.width_of(p);
      float* packed = block + panels.offset_of(p, run.count);
      if (s.transpose_b)
        pack_transposed(b + n * s.K + k, s.K, run.count, columns, width, packed);
      else
        pack_rows(b + k * s.N + n, s.N, run.count, columns, width, packed);
      multiply(a, rows, row_count, &run, 1, packed, width, y + n, columns,
               {nullptr, k > 0, Activation::none});
    }
  }
}

inline void matmul(Context& context, const MatmulShape& s, const float* a, const float* b, float* y,
                   void* memory) {
  const MatmulWork work = make_matmul_work(context.threads(), memory);
  const Pieces pieces(s.M, s.N, kDenseRows, kDenseColumns);
  parallel_for(context, s.B * pieces.count(), grain_of(s.M * s.N * s.K / pieces.count() / 8),
               [&](std::int64_t begin, std::int64_t end, int worker) {
                 Row* rows = work.rows + worker * kDenseRows;
                 float* block = work.blocks + worker * kStretch * kDenseColumns;
                 for (std::int64_t item = begin; item < end; ++item) {
                   const std::int64_t entry = item / pieces.count(), piece = item % pieces.count();
                   const std::int64_t m = pieces.first_row(piece % pieces.row_pieces);
                   const std::int64_t count = pieces.first_row(piece % pieces.row_pieces + 1) - m;
                   const std::int64_t column_piece = piece / pieces.row_pieces;
                   list_dense_rows(count, s.transpose_a ? 1 : s.K, s.N, rows);
                   matmul_piece(s, a + entry * s.M * s.K + (s.transpose_a ? m : m * s.K), rows,
                                count, b + entry * s.K * s.N, pieces.first_column(column_piece),
                                pieces.first_column(column_piece + 1), block,
                                y + (entry * s.M + m) * s.N);
                 }
               });
}

}  // namespace convlet::CONVLET_ISA
