"""From files to batches: reading, cleaning, splitting, tokenizing and batching text."""

# fmt: off
from companion.text.batching import (
    IGNORE, Batch, jittered_cuts, num_windows, padded, scoring_streams, span, streams, window,
    windows,
)
from companion.text.cleaning import CleaningReport, clean_documents, clean_text
from companion.text.corpora import (
    Corpus, corpus_descriptions, corpus_names, load_corpus, load_corpus_if_reachable,
)
from companion.text.documents import (
    CorpusError, CorpusUnreachableError, Document, cut_at_spaces, read_documents, read_folder,
    read_text,
)
from companion.text.duplicates import copied_passages, near_duplicates, words_of
from companion.text.labelled import (
    Example, LabelledTexts, classes_of, encode_texts, read_column, read_examples,
)
from companion.text.parallel import (
    Pair, PairBatch, SplitPairs, encode_sources, pair_batch, pair_batches, read_catalogue,
    read_pairs, read_two_files, split_pairs,
)
from companion.text.python_library import code, docstrings, documentation
from companion.text.rows import (
    rows_by_length, text_batch, text_rows, tokens_through_end, word_counts,
)
from companion.text.splitting import SPLITS, position, split_documents
from companion.text.tokenizers import (
    BPETokenizer, ByteTokenizer, CharacterTokenizer, EncodedText, Tokenizer, WordTokenizer,
    build_tokenizer, encode_documents, load_tokenizer, save_tokenizer, tokenizer_from_dict,
)

__all__ = [
    "IGNORE", "SPLITS", "BPETokenizer", "Batch", "ByteTokenizer", "CharacterTokenizer",
    "CleaningReport", "Corpus", "CorpusError", "CorpusUnreachableError", "Document", "EncodedText",
    "Example", "LabelledTexts", "Pair", "PairBatch", "SplitPairs", "Tokenizer", "WordTokenizer",
    "build_tokenizer", "classes_of", "clean_documents", "clean_text", "code", "copied_passages",
    "corpus_descriptions", "corpus_names", "cut_at_spaces", "docstrings", "documentation",
    "encode_documents", "encode_sources", "encode_texts", "jittered_cuts", "load_corpus",
    "load_corpus_if_reachable", "load_tokenizer", "near_duplicates", "num_windows", "padded",
    "pair_batch", "pair_batches", "position", "read_catalogue", "read_column", "read_documents",
    "read_examples", "read_folder", "read_pairs", "read_text", "read_two_files", "rows_by_length",
    "save_tokenizer", "scoring_streams", "span", "split_documents", "split_pairs", "streams",
    "text_batch", "text_rows", "tokenizer_from_dict", "tokens_through_end", "window", "windows",
    "word_counts", "words_of",
]
